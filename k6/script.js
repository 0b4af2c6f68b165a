// Load on a single address, to watch in the monitoring:
//
//   k6 run --vus 100 --duration 1m --insecure-skip-tls-verify ./k6/script.js -e DOMAIN=arch.homework -e PATH=/user/user/ID
//
// DOMAIN and PATH are required; SCHEME (http) and PORT (the scheme's default) are optional. --vus and --duration set the load.
// The run fails if any response is not a 200.
import http from "k6/http";
import { check, fail } from "k6";
import { origin } from "./origin.js";

export const options = {
  thresholds: { checks: ["rate==1.0"] },
};

// Scripts also see the shell's environment, in which PATH is a list of folders.
function path(env) {
  if (!env.PATH || !env.PATH.startsWith("/") || env.PATH.includes(":")) {
    fail("PATH is missing: -e PATH=/user/user/ID");
  }
  return env.PATH;
}

export function setup() {
  return { url: origin(__ENV) + path(__ENV) };
}

export default function (data) {
  const answer = http.get(data.url);
  check(answer, { "status is 200": (r) => r.status === 200 });
}
