// Customer journeys, from the registration to the last notification:
//
//   k6 run ./k6/shop.js -e DOMAIN=127.0.0.1 -e PORT=8080
//
// An iteration is one customer, who registers, refills the wallet, places ORDERS orders (4) with THINK seconds (0.5) between
// them, and then reads the notifications. Of eight orders five succeed; one costs more than the wallet holds, one has a
// delivery in the past, one is out of stock. Some of the successful ones are sent twice with the same Idempotency-Key. Wallet
// and notifications are checked to the cent. --vus (10) and --duration (30s) set the load. The run fails if a threshold is
// exceeded; MAX_ORDER_MS (500) is the one that depends most on the machine.
import http from "k6/http";
import { check, fail, sleep } from "k6";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";
import { origin } from "./origin.js";

const ORDERS = Number(__ENV.ORDERS || 4);
const THINK = Number(__ENV.THINK || 0.5);
const NOTIFIED_WITHIN_MS = 2000;
const POLL_SECONDS = 0.05;
const CENTS = [1999, 4950, 12345]; // prices; cents add up exactly
const TOO_DEAR = 9999999;
const LATER = "2036-06-26T16:00:00";
const BEFORE = "2020-06-26T16:00:00";

// The sequence of orders: null succeeds, otherwise the step that refuses it.
const KINDS = [null, "payment", null, "delivery", null, null, "warehouse", null];

const good = new Counter("shop_orders_good");
const refused = new Counter("shop_orders_refused");
const replayed = new Counter("shop_answers_replayed");
const notified = new Trend("shop_notified_after", true);

export const options = {
  vus: 10,
  duration: "30s",
  summaryTrendStats: ["avg", "med", "p(95)", "p(99)", "max"],
  thresholds: {
    checks: ["rate==1.0"],
    http_req_failed: ["rate==0.0"],
    "http_req_duration{name:order}": [`p(95)<${__ENV.MAX_ORDER_MS || 500}`],
    "http_req_duration{name:wallet}": ["p(95)<200"],
    shop_notified_after: [`max<${NOTIFIED_WITHIN_MS}`],
    shop_orders_good: ["count>0"],
    "shop_orders_refused{by:payment}": ["count>0"],
    "shop_orders_refused{by:delivery}": ["count>0"],
    "shop_orders_refused{by:warehouse}": ["count>0"],
    shop_answers_replayed: ["count>0"],
  },
};

// One request; a response with another status counts as failed.
function call(method, url, body, name, status, headers) {
  const answer = http.request(method, url, body && JSON.stringify(body), {
    headers: Object.assign({ "Content-Type": "application/json" }, headers),
    tags: { name },
    responseCallback: http.expectedStatuses(status),
  });
  if (!check(answer, { [`${name}: status is as expected`]: (r) => r.status === status })) {
    fail(`${name}: ${answer.status} instead of ${status}: ${answer.body}`);
  }
  return answer;
}

export function setup() {
  const shop = origin(__ENV);
  const run = `k6-${Date.now()}`;
  const soldOut = `${run}-sold-out`;
  call("PUT", `${shop}/warehouse/stock/${soldOut}`, { available: 0 }, "stock", 200);
  return { shop, run, soldOut };
}

function register(data, customer) {
  const body = { name: customer, email: `${customer}@example.org` };
  return call("POST", `${data.shop}/user/user`, body, "register", 200).json();
}

// Only successful orders and those that are too expensive use the wallet; each of these creates one notification.
function paidFromWallet(kind) {
  return kind === null || kind === "payment";
}

function orderBody(data, kind, cents, user) {
  const line = { item: kind === "warehouse" ? data.soldOut : "phone", amount: 1, price: cents / 100 };
  const body = { contents: [line], timeDelivery: kind === "delivery" ? BEFORE : LATER };
  return paidFromWallet(kind) ? Object.assign(body, { billingId: user.billingId }) : body;
}

function orderAgain(url, body, headers, first) {
  const second = call("POST", url, body, "order again", 200, headers);
  check(second, {
    "order again: the same answer": (r) => r.body === first.body,
    "order again: marked as replayed": (r) => r.headers["Idempotent-Replayed"] === "true",
  });
  replayed.add(1);
}

function orderRefused(url, body, headers, kind) {
  const answer = call("POST", url, body, "order refused", 424, headers);
  check(answer, { "order refused: by the expected step": (r) => r.json("step") === kind });
  refused.add(1, { by: kind });
}

// The amount taken from the wallet, in cents.
function order(data, number, kind, user) {
  const cents = kind === "payment" ? TOO_DEAR : CENTS[number % CENTS.length];
  const url = `${data.shop}/order/order/saga`;
  const headers = { "Idempotency-Key": `"${data.run}-${number}"` };
  const body = orderBody(data, kind, cents, user);
  if (kind !== null) {
    orderRefused(url, body, headers, kind);
    return 0;
  }
  const answer = call("POST", url, body, "order", 200, headers);
  check(answer, { "order: succeeded": (r) => r.json("0.status") === "SUCCESS" });
  good.add(1);
  if (number % KINDS.length === 0) {
    orderAgain(url, body, headers, answer);
  }
  return cents;
}

// Notifications arrive shortly after the responses, and exactly one per operation.
function readNotifications(data, user, expected) {
  const url = `${data.shop}/notification/notification/${user.id}`;
  const began = Date.now();
  let count = 0;
  for (;;) {
    count = call("GET", url, null, "notifications", 200).json().length;
    if (count >= expected || Date.now() - began >= NOTIFIED_WITHIN_MS) {
      break;
    }
    sleep(POLL_SECONDS);
  }
  notified.add(Date.now() - began);
  check(count, { "notifications: one per operation": (n) => n === expected });
}

export default function (data) {
  const first = exec.scenario.iterationInTest * ORDERS;
  const user = register(data, `${data.run}-${first}`);
  let wallet = ORDERS * Math.max(...CENTS);
  let operations = 2; // opened and filled
  call("PUT", `${data.shop}/billing/billing/refill/${user.billingId}/${wallet / 100}`, null, "wallet", 200);
  for (let number = first; number < first + ORDERS; number++) {
    sleep(Math.random() * 2 * THINK);
    const kind = KINDS[number % KINDS.length];
    wallet -= order(data, number, kind, user);
    operations += paidFromWallet(kind) ? 1 : 0;
  }
  const holds = call("GET", `${data.shop}/billing/billing/${user.billingId}`, null, "wallet", 200).json("wallet");
  check(holds, { "wallet: balance is correct": (sum) => Math.round(sum * 100) === wallet });
  readNotifications(data, user, operations);
}
