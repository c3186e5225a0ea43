-- Grants an instance a lease on its in-process tier and hands it what it has not applied yet.
-- KEYS meta, log. ARGV instance, its epoch, its position, its sequence number, 1 to take a lease, most entries.
-- Returns {epoch or '', now in ms, the end of the marker in ms or 0, position, entries, reign}.
local m = redis.call('HMGET', KEYS[1], 'reign', 'epoch', 'marked', 'fresh', 'pos')
if m[1] ~= reign() then
  return {'', 0, 0, 0, {}, ''}
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local fresh = tonumber(m[4])
if now >= fresh or now < tonumber(m[3]) then
  fresh = 0
end
if fresh > 0 and ARGV[5] == '1' then
  redis.call('HDEL', KEYS[1], '-') -- a script that has written is not refused memory
  redis.call('HSET', KEYS[1], 'i:' .. ARGV[1], ARGV[4])
end
local entries = {}
if m[2] == ARGV[2] and tonumber(m[5]) > tonumber(ARGV[3]) then
  entries = redis.call('XRANGE', KEYS[2], (tonumber(ARGV[3]) + 1) .. '-0', '+', 'COUNT', ARGV[6])
end
return {m[2], now, fresh, tonumber(m[5]), entries, m[1]}
