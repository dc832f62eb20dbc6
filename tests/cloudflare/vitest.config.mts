// The tests of the Worker run inside workerd. What differs each time comes from test_worker.py, as JSON.
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [
    cloudflareTest({
      wrangler: { configPath: "./wrangler.jsonc" },
      miniflare: { bindings: JSON.parse(process.env["FINN_TEST_BINDINGS"] ?? "{}") },
    }),
  ],
  test: { testTimeout: 30_000, hookTimeout: 30_000, fileParallelism: false },
});
