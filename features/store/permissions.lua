#!lua flags=no-writes
-- Which of some commands this user may not run on this shard's keys. Asked before the first write: a script that is
-- refused in the middle has written half.
-- KEYS[1]  {tag}:<app>:<generation>:hwm
-- ARGV     commands
-- Returns  those that are refused
local refused = {}
for _, command in ipairs(ARGV) do
  if not redis.acl_check_cmd(command, KEYS[1]) then refused[#refused + 1] = command end
end
return refused
