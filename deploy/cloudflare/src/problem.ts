// Errors as finn itself tells them: application/problem+json with code, detail and hint (RFC 9457).

const PROBLEMS = {
  not_found: [404, "Not Found"],
  forbidden_access: [403, "Forbidden"],
  agent_unavailable: [503, "Service Unavailable"],
  access_unavailable: [503, "Service Unavailable"],
  misconfigured: [503, "Service Unavailable"],
} as const;

export interface Problem {
  readonly code: keyof typeof PROBLEMS;
  readonly detail: string;
  readonly hint: string;
  /** Seconds until it is worth asking again. */
  readonly retryAfter?: number;
}

/** The answer to a request that came no further. */
export function refusal(request: Request, { code, detail, hint, retryAfter }: Problem): Response {
  const [status, title] = PROBLEMS[code];
  const id = request.headers.get("x-request-id") ?? request.headers.get("cf-ray") ?? crypto.randomUUID();
  const headers = new Headers({
    "content-type": "application/problem+json",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-request-id": id,
  });
  if (retryAfter !== undefined) headers.set("retry-after", String(Math.ceil(retryAfter)));
  return new Response(JSON.stringify({ type: "about:blank", title, status, code, detail, hint, request_id: id }), { status, headers });
}
