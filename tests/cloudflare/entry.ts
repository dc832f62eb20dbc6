// The real Worker and the real object, on containers of loopback.

import worker, { AgentContainer as Real } from "../../deploy/cloudflare/src/door";
import type { Env } from "../../deploy/cloudflare/src/settings";
import { LoopbackContainer } from "./container";

export { ContainerProxy } from "../../deploy/cloudflare/src/door";

export interface TestEnv extends Env {
  readonly MACHINES: string;
  readonly FINN_TOKEN: string;
  readonly FINN_TOKEN__BOB: string;
}

declare global {
  namespace Cloudflare {
    interface Env extends TestEnv {}
    interface GlobalProps {
      mainModule: typeof import("./entry");
    }
  }
}

export class AgentContainer extends Real {
  constructor(ctx: DurableObjectState, env: TestEnv) {
    Object.defineProperty(ctx, "container", { value: new LoopbackContainer(env.MACHINES, ctx.id.toString()), configurable: true });
    super(ctx as DurableObjectState<object>, env);
  }

  get loopback(): LoopbackContainer {
    return this.ctx.container as unknown as LoopbackContainer;
  }
}

export default worker;
