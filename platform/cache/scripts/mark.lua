-- Renews the freshness marker: everything committed before t0 has been invalidated in this epoch.
-- KEYS meta. ARGV epoch, t0 in ms of this server's clock (0 marks nothing), life in ms.
-- Returns {epoch or '', now}. A clock that has stepped back puts the marker out.
local m = redis.call('HMGET', KEYS[1], 'reign', 'epoch', 'fresh')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if m[1] ~= reign() then
  return {'', now}
end
if m[2] == ARGV[1] and ARGV[2] ~= '0' then
  local t0 = tonumber(ARGV[2])
  local fresh = math.max(tonumber(m[3]), t0 + tonumber(ARGV[3]))
  if t0 > now or fresh > now + tonumber(ARGV[3]) then
    fresh = 0
  end
  redis.call('HDEL', KEYS[1], '-') -- a script that has written is not refused memory
  redis.call('HSET', KEYS[1], 'marked', now, 'fresh', fresh)
end
return {m[2], now}
