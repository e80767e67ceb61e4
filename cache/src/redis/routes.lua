-- KEYS: routes of users. Gives the gateways of each whose lease has not ended, every gateway once.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all = {}
for i, key in ipairs(KEYS) do
  local gateways, seen = {}, {}
  for _, route in ipairs(redis.call('HVALS', key)) do
    local expires, gateway = string.match(route, '^(%d+) (.+)$')
    if tonumber(expires) > now and not seen[gateway] then
      seen[gateway] = true
      gateways[#gateways + 1] = gateway
    end
  end
  all[i] = gateways
end
return all
