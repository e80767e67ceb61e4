-- Starts epochs of counters that have none. KEYS: counters, without the run. ARGV: a new epoch times 2^32, TTL in ms, the
-- increment of each counter, id of the server's run. Returns for each {value, 1 if the counter was missing, else 0}.
local run = ARGV[#ARGV]
local begun = {}
for i, name in ipairs(KEYS) do
  local key = name .. ':' .. run
  local value = redis.call('GET', key)
  local missing = value and 0 or 1
  if not value then
    redis.call('INCRBY', key, ARGV[i + 2])
  end
  -- Only compare: numbers in a script have 53 bits.
  if not value or tonumber(value) < 4294967296 then
    redis.call('INCRBY', key, ARGV[1])
    redis.call('PEXPIRE', key, ARGV[2])
  end
  begun[i] = {redis.call('GET', key), missing}
end
return begun
