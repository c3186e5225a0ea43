-- Begins an epoch: every value, lease, position and registration of earlier ones is void.
-- KEYS meta, log. ARGV epoch. Returns now in ms.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'run', run, 'epoch', ARGV[1], 'pos', 0, 'marked', now, 'fresh', 0)
return now
