// The shop's address: DOMAIN, and optionally SCHEME (http) and PORT (the scheme's default).
import { fail } from "k6";

export function origin(env) {
  if (!env.DOMAIN) {
    fail("DOMAIN is missing: -e DOMAIN=arch.homework");
  }
  const port = env.PORT ? `:${env.PORT}` : "";
  return `${env.SCHEME || "http"}://${env.DOMAIN}${port}`;
}
