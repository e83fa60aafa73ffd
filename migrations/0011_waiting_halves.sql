-- Halves of a split that wait for the other one are somebody's storage too.

ALTER TABLE dataset_part ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;   -- of the file; 0: from before

CREATE TRIGGER part_added AFTER INSERT ON dataset_part WHEN new.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes + new.bytes WHERE seq = new.owner;
END;
CREATE TRIGGER part_replaced AFTER UPDATE OF bytes, owner ON dataset_part BEGIN
    UPDATE user SET storage_bytes = storage_bytes - old.bytes WHERE seq = old.owner;
    UPDATE user SET storage_bytes = storage_bytes + new.bytes WHERE seq = new.owner;
END;
CREATE TRIGGER part_gone AFTER DELETE ON dataset_part WHEN old.owner NOT NULL BEGIN
    UPDATE user SET storage_bytes = storage_bytes - old.bytes WHERE seq = old.owner;
END;
