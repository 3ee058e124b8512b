#!lua flags=allow-oom
-- Removes the entries of forgotten users from some session lists of one shard; it only ever frees memory.
-- KEYS[1]  {tag}:<app>:<generation>:hwm; the shard's other keys share its prefix and so its slot
-- ARGV     users, (user as 8 bytes, until ms as 6 bytes)..., items as 16 hex digits...
-- Returns  how many entries are gone; begun and ended: see redis_scripts.py
local call, sub, find = redis.call, string.sub, string.find
local prefix = sub(KEYS[1], 1, -4) .. 's:'
if call('EXISTS', KEYS[1]) == 0 then return 0 end -- a generation that was sealed: nothing of it may come back
redis.call('EXISTS', string.sub(KEYS[1], 1, -4) .. '-') -- nobody's: fails in a cluster while the slot is moved, see redis_cluster.py
local ended = call('HGET', KEYS[1], 'ended') or 0
local users, forgotten, first = tonumber(ARGV[1]), {}, {}
for at = 2, 2 * users, 2 do
  forgotten[ARGV[at]] = struct.unpack('>I6', ARGV[at + 1])
  first[#first + 1] = ARGV[at]
end

-- one search in C a user, as long as that is cheaper than to cut a list of 64 into its users
local formats = {}
local function may_list_any(list)
  if users <= 128 then
    for index = 1, users do
      if find(list, first[index], 1, true) then return true end
    end
    return false
  end
  local entries = #list / 16
  local format = formats[entries] or string.rep('xxxxxxc8xx', entries)
  formats[entries] = format
  local listed = {struct.unpack(format, list)}
  for index = 1, entries do
    if forgotten[listed[index]] then return true end
  end
  return false
end

local gone = 0
for at = 2 * users + 2, #ARGV do
  local key = prefix .. ARGV[at]
  local list = call('GET', key)
  if list and may_list_any(list) then
    local kept = {}
    for from = 1, #list, 16 do
      local till = forgotten[sub(list, from + 6, from + 13)]
      if not till or struct.unpack('>I6', list, from) > till then kept[#kept + 1] = sub(list, from, from + 15) end
    end
    local removed = #list / 16 - #kept
    if removed > 0 then
      if gone == 0 then call('HINCRBY', KEYS[1], 'begun', 1) end
      gone = gone + removed
      if #kept == 0 then
        call('DEL', key)
      else
        call('SET', key, table.concat(kept), 'KEEPTTL')
      end
    end
  end
end
if gone > 0 then call('HSET', KEYS[1], 'ended', ended + 1) end
return gone
