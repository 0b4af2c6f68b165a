-- wrk: requests with random methods, paths and ids, of which none changes anything. Only methods that its own parser
-- knows, as it looks at the first of them, and no HEAD, since it waits for the body that the answer only announces.
local methods = { "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "REPORT" }
local prefixes = { "/", "/order/", "/order/order/", "/payment/payment/", "/billing/billing/", "/metrics/", "/actuator/" }

local function word()
  local letters = {}
  for i = 1, math.random(1, 24) do
    letters[i] = string.char(math.random(97, 122))
  end
  return table.concat(letters)
end

function setup(thread)
  thread:set("seed", os.time() + tonumber(tostring(thread):match("0x(%x+)") or "1", 16) % 1000000)
end

function init()
  math.randomseed(seed)
end

function request()
  return wrk.format(methods[math.random(#methods)], prefixes[math.random(#prefixes)] .. word() .. "?" .. word())
end

function done(summary)
  io.write(string.format("RESULT requests=%d\n", summary.requests))
end
