-- Precedes every script that believes what this server holds. Returns an id of the time for which this process has been
-- master without a break, or nil on a replica: a promotion and a start draw a new one. The run id would not do: a master
-- that is demoted, takes over its successor's data, which may lack its own last deletions, and is promoted again keeps
-- that one.
local function reign()
  local info = redis.call('INFO', 'replication')
  return string.find(info, 'role:master', 1, true) and string.match(info, 'master_replid:(%x+)')
end

