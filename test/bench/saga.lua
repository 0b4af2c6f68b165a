-- wrk: one saga of one line after another, without a wallet, to be delivered in a month.
local when = os.date("!%Y-%m-%dT%H:%M:%S", os.time() + 30 * 86400)

wrk.method = "POST"
wrk.body = '{"contents":[{"item":"phone","amount":1,"price":123.45}],"timeDelivery":"' .. when .. '"}'
wrk.headers["Content-Type"] = "application/json"

dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")
