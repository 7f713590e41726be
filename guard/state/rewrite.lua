-- Replaces a ledger's terms and some of its accounts, unless anything that the caller has read has changed since.
--
-- KEYS: the ledger's terms; then the counters.
-- ARGV[1], ARGV[2]: '1' and the terms read, or '0' when there were none. ARGV[3]: the new terms; '' leaves the old ones.
--   ARGV[4]: the random name that the new ones are known by.
-- ARGV[5]: JSON list of accounts, in the order of the counters: {spent read, total read ('' for none), spent, total,
--   ttl_ms or '0' (of a counter that is not there), {{event, rows, amount}...}}; every number as a text, to stay exact.
-- Returns 1, or 0 when nothing was changed. How a counter looks: charge.lua.

local accounts = cjson.decode(ARGV[5])
if redis.call('HGET', KEYS[1], 'terms') ~= (ARGV[1] == '1' and ARGV[2]) then return 0 end
for i, account in ipairs(accounts) do
  local now = redis.call('HMGET', KEYS[i + 1], 's', 't')
  if (now[1] or '') ~= account[1] or (now[2] or '') ~= account[2] then return 0 end
end
for i, account in ipairs(accounts) do
  local key = KEYS[i + 1]
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.find(name, '^j%d') or string.find(name, '^[ra]|') then redis.call('HDEL', key, name) end
  end
  redis.call('HSET', key, 's', account[3], 't', account[4], 'n', '0')
  for _, entry in ipairs(account[6]) do
    redis.call('HSET', key, 'r|' .. entry[1], entry[2], 'a|' .. entry[1], entry[3])
  end
  if account[1] == '' and account[5] ~= '0' then redis.call('PEXPIRE', key, account[5]) end
end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'terms', ARGV[3], 'by', ARGV[4]) end
return 1
