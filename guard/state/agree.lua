-- Puts a ledger's terms down where there are none, and returns those in force with what they are known by.
--
-- KEYS[1]: the ledger's terms, a hash of terms and by: a random name that every change of the terms makes anew.
-- ARGV[1]: the terms to put down.
-- ARGV[2]: the name under which the caller has known the ledger's terms; '' for none. If it has known any and there are
-- none, the ledger is lost, and is not begun anew.
-- ARGV[3]: the name for terms that are put down now.

local live = redis.call('HMGET', KEYS[1], 'terms', 'by')
if live[1] or ARGV[2] ~= '' then return live end
redis.call('HSET', KEYS[1], 'terms', ARGV[1], 'by', ARGV[3])
return {ARGV[1], ARGV[3]}
