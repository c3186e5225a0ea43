-- Grants an instance a lease on its in-process tier and hands it what it has not applied yet.
-- KEYS meta, log. ARGV instance, its epoch, its position, its sequence number, longest lease in ms, most entries.
-- Returns {epoch or '', lease ms, position, entries}.
local m = redis.call('HMGET', KEYS[1], 'run', 'epoch', 'marked', 'fresh', 'pos')
if not m[1] or not string.find(redis.call('INFO', 'server'), m[1], 1, true) then
  return {'', 0, 0, {}}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local lease = 0
if now >= tonumber(m[3]) then
  lease = math.max(0, math.min(tonumber(m[4]) - now, tonumber(ARGV[5])))
end
if lease > 0 then
  redis.call('HDEL', KEYS[1], '-') -- a script that has written is not refused memory
  redis.call('HSET', KEYS[1], 'i:' .. ARGV[1], ARGV[4])
end
local entries = {}
if m[2] == ARGV[2] and tonumber(m[5]) > tonumber(ARGV[3]) then
  entries = redis.call('XRANGE', KEYS[2], (tonumber(ARGV[3]) + 1) .. '-0', '+', 'COUNT', ARGV[6])
end
return {m[2], lease, tonumber(m[5]), entries}
