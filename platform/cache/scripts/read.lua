-- Reads one entity key, or leases it to the caller.
-- KEYS meta, entity. ARGV lease token, lease ms.
-- Returns the value, which begins with V | L and the epoch: the caller may fill | B: another reader fills | S: not fresh.
local m = redis.call('HMGET', KEYS[1], 'reign', 'epoch', 'marked', 'fresh')
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not m[4] or now >= tonumber(m[4]) or now < tonumber(m[3])
  or m[1] ~= reign() then
  return 'S'
end
local v = redis.call('GET', KEYS[2])
if v and string.sub(v, 2, 17) == m[2] then
  if string.byte(v) == 86 then
    return v
  end
  return 'B'
end
redis.call('SET', KEYS[2], 'L' .. m[2] .. ARGV[1], 'PX', ARGV[2])
return 'L' .. m[2]
