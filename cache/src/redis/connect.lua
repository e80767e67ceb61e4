-- Registers or renews a route and reads the counter. KEYS: routes and presence of a user, counter of the user and order of the
-- newest connection (both without the run), watchers of the user. ARGV: connection, gateway, order of the connection or 0 for a new
-- one, lease in ms, TTL in ms of everything else, a new epoch times 2^22, id of the server's run.
-- Returns {counter, order, 1 if the user had no other connection, else 0, 1 if the user has watchers, else 0}.
local call, run = redis.call, ':' .. ARGV[#ARGV]
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local order, newest = tonumber(ARGV[3]), KEYS[4] .. run

local offline, known, largest = 1, false, 0
local routes = call('HGETALL', KEYS[1])
for i = 1, #routes, 2 do
  local expiry, of_route = string.match(routes[i + 1], '^(%d+) (%d+)')
  if routes[i] == ARGV[1] then
    order, known = tonumber(of_route), true
  elseif tonumber(expiry) <= now then
    call('HDEL', KEYS[1], routes[i])
  else
    offline = 0
  end
  largest = math.max(largest, tonumber(of_route))
end

if not known and order > 0 then
  -- The route was lost. The order of later connections must be larger.
  if order > tonumber(call('GET', newest) or 0) then
    call('SET', newest, order, 'PX', ARGV[5])
  end
elseif not known then
  order = call('INCR', newest)
  if order == 1 then
    order = time[1] * 1000000 + time[2]
  end
  order = math.max(order, largest + 1)
  call('SET', newest, order, 'PX', ARGV[5])
  if offline == 1 then
    call('HDEL', KEYS[2], 'text')
  end
end
call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %s', now + ARGV[4], order, ARGV[2]))
-- An expired lease stays: it tells when the user was last seen.
call('PEXPIRE', KEYS[1], ARGV[5])

local key = KEYS[3] .. run
local counter = tonumber(call('HGET', key, '.counter') or 0)
if counter < 4194304 then
  counter = call('HINCRBY', key, '.counter', ARGV[6])
end
call('PEXPIRE', key, ARGV[5])
return {counter, order, offline, call('EXISTS', KEYS[5])}
