#!lua
-- Gives the lease of a rebuild back, if it is still the owner's.
-- KEYS[1]  {0}:<app>:meta
-- Beside it, in its slot: {0}:<app>:rebuild, the lease
-- ARGV     owner
-- Returns  ''
local lease = string.sub(KEYS[1], 1, -5) .. 'rebuild'
local holder = redis.call('GET', lease) or ''
if string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. ' ' then redis.call('DEL', lease) end
return ''
