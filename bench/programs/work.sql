-- Everyday SQL: insert, index, join, aggregate, update, delete. The number of rows comes first, in the table "amount".
PRAGMA journal_mode = MEMORY;
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n, amount WHERE i < rows)
INSERT INTO item SELECT i, printf('item-%05x', i * 7919 % 65521), i * 31 % 97, (i * 17 % 1000) / 8.0 FROM n;
COMMIT;
CREATE INDEX by_name ON item (name);
CREATE INDEX by_kind ON item (kind, price);
SELECT kind, count(*), sum(price), min(name), max(length(name)) FROM item GROUP BY kind ORDER BY 3 DESC, 1 LIMIT 5;
SELECT count(*), sum(a.price * b.price) FROM item a JOIN item b ON a.kind = b.id AND b.name > a.name;
SELECT count(*) FROM item WHERE name LIKE '%a1%';
UPDATE item SET price = price * 1.5 WHERE kind % 3 = 1;
DELETE FROM item WHERE id % 5 = 0;
SELECT count(*), round(sum(price), 3), group_concat(name, '') LIKE '%b%' FROM item;
SELECT upper(substr(name, 6)), hex(id) FROM item ORDER BY name DESC, id LIMIT 3;
PRAGMA integrity_check;
