-- Increments counters and records the changed subjects. KEYS: counters, without the run. ARGV: a new epoch times 2^22, TTL in ms, number
-- of subjects to keep; for each counter its increment, its number of subjects, and the subjects; id of the server's run.
-- Returns the counters.
local call, run = redis.call, ':' .. ARGV[#ARGV]
local keep = tonumber(ARGV[3])

-- Removes all subjects but those that changed last.
local function trim(key)
  local fields, subjects = call('HGETALL', key), {}
  for i = 1, #fields, 2 do
    if string.byte(fields[i]) ~= 46 then -- 46: '.'
      subjects[#subjects + 1] = {fields[i], tonumber(fields[i + 1])}
    end
  end
  table.sort(subjects, function(a, b) return a[2] > b[2] end)
  for i = keep + 1, #subjects do
    call('HDEL', key, subjects[i][1])
  end
  if subjects[keep + 1] then
    call('HSET', key, '.complete_after', subjects[keep + 1][2])
  end
end

local counters, arg = {}, 4
for i, name in ipairs(KEYS) do
  local key, by, subjects = name .. run, ARGV[arg], tonumber(ARGV[arg + 1])
  local counter = call('HINCRBY', key, '.counter', by)
  if counter < 4194304 then
    counter = call('HINCRBY', key, '.counter', ARGV[1])
    call('PEXPIRE', key, ARGV[2])
  end
  local added = 0
  for j = arg + 2, arg + 1 + subjects do
    added = added + call('HSET', key, ARGV[j], counter)
  end
  -- A hash of at most 128 fields takes little memory.
  if added > 0 and call('HLEN', key) > keep + 20 then
    trim(key)
  elseif subjects == 0 and tonumber(by) > 0 then
    call('HSET', key, '.complete_after', counter)
  end
  arg = arg + 2 + subjects
  counters[i] = counter
end
return counters
