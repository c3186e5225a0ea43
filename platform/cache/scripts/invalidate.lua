-- Deletes entity keys, appends their names to the log and announces them.
-- KEYS meta, log, entities... ARGV expected epoch or '', channel, group, origin, names, log length.
-- Returns {epoch or '', position, 1 if the marker lives, instance, sequence, ...}.
--
-- DEL comes first for a second reason: a script that has written is not refused memory, so a full server still
-- invalidates.
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
local m = redis.call('HMGET', KEYS[1], 'reign', 'epoch', 'marked', 'fresh')
if m[1] ~= reign()
  or (ARGV[1] ~= '' and ARGV[1] ~= m[2]) then
  return {'', 0, 0}
end
local pos = redis.call('HINCRBY', KEYS[1], 'pos', 1)
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], pos .. '-0', 'o', ARGV[4], 'n', ARGV[5])
redis.call('PUBLISH', ARGV[2], table.concat({m[2], pos, ARGV[3], ARGV[4], ARGV[5]}, ' '))
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local live = now < tonumber(m[4]) and now >= tonumber(m[3])
local reply = {m[2], pos, live and 1 or 0}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if string.sub(all[i], 1, 2) == 'i:' then
    reply[#reply + 1] = string.sub(all[i], 3)
    reply[#reply + 1] = all[i + 1]
  end
end
return reply
