#!lua
-- Verifies or moves marks of one shard over offsets that held nothing for it.
-- KEYS[1]  {tag}:<app>:<generation>:hwm
-- ARGV     (field, prev, last)...
-- Returns  (index of the triple from 0, actual mark)... of those that did not stand at prev | error TORN (see
--          redis_scripts.py)
local held = redis.call('HMGET', KEYS[1], 'begun', 'ended')
if held[1] ~= held[2] then return redis.error_reply('TORN ' .. KEYS[1]) end
local missed = {}
for at = 1, #ARGV, 3 do
  local mark = redis.call('HGET', KEYS[1], ARGV[at]) or '-2'
  if mark ~= ARGV[at + 1] then
    missed[#missed + 1] = (at - 1) / 3
    missed[#missed + 1] = tonumber(mark)
  elseif mark ~= ARGV[at + 2] then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
  end
end
return missed
