-- wrk: refills by 1, in each of the accounts by turns, until so many were done: URL -- COUNT ACCOUNT…
local requests, goal, done, at = {}, 0, 0, 0

function init(args)
  goal = tonumber(args[1])
  for i = 2, #args do
    requests[i - 1] = wrk.format("PUT", "/billing/billing/refill/" .. args[i] .. "/1")
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function response(status)
  if status == 200 then done = done + 1 end
  if done >= goal then os.exit(0) end -- wrk would sit out its time
end
