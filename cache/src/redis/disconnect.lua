-- Removes a route. KEYS: routes and presence of a user. ARGV: connection, TTL of the presence in ms, id of the server's run.
-- Returns 1 if the user is offline, else 0.
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local removed = call('HDEL', KEYS[1], ARGV[1])
for _, route in ipairs(call('HVALS', KEYS[1])) do
  if tonumber(string.match(route, '^%d+')) > now then
    return 0
  end
end
if removed == 1 then
  call('HSET', KEYS[2], 'seen', string.format('%.0f', now))
  call('HDEL', KEYS[2], 'text')
  call('PEXPIRE', KEYS[2], ARGV[2])
end
return 1
