-- Raises counters. KEYS: counters. ARGV: epoch of new ones, life in ms, by how much each is raised, run of this server.
-- Gives {epoch, seq} of each.
local run = ARGV[#ARGV]
local raised = {}
for i, key in ipairs(KEYS) do
  local counter = redis.call('HMGET', key, 'e', 'r')
  local epoch = counter[1]
  if not epoch or counter[2] ~= run then
    epoch = ARGV[1]
    redis.call('HSET', key, 'e', epoch, 'r', run, 'n', 0)
    redis.call('PEXPIRE', key, ARGV[2])
  end
  raised[i] = {tonumber(epoch), redis.call('HINCRBY', key, 'n', ARGV[i + 2])}
end
return raised
