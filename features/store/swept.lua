#!lua flags=allow-oom
-- Forgotten users whose entries are gone from all session lists of one shard are no longer to be swept.
-- KEYS[1]  {tag}:<app>:<generation>:hwm
-- ARGV     (user as 16 hex digits, what was swept)...; a user who was forgotten again since stays
redis.call('EXISTS', string.sub(KEYS[1], 1, -4) .. '-') -- nobody's: fails in a cluster while the slot is moved, see redis_cluster.py
local sweeps = string.sub(KEYS[1], 1, -4) .. 'sweep'
for at = 1, #ARGV, 2 do
  if redis.call('HGET', sweeps, ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', sweeps, ARGV[at]) end
end
return redis.call('HLEN', sweeps)
