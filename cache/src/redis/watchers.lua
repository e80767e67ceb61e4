-- KEYS: watchers of a user, by expiry. ARGV: id of the server's run. Returns the watchers whose leases have not expired.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf')
