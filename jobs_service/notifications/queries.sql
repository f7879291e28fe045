-- name: list_notifications
-- A page with the total and, whatever the filter, the number of unread ones. Superseded notifications are in none of them.
-- Count and page are separate, so that each uses its own index.
select counted.total, counted.unread, page.*
from (
    select count(*) filter (where not (read and $1)) as total, count(*) filter (where not read) as unread
    from lora_notifications
    where not superseded
) counted
left join lateral (
    select * from lora_notifications
    where not (read and $1) and not superseded
    order by created_at desc, id desc
    limit $2 offset $3
) page on true
order by page.created_at desc, page.id desc;

-- name: mark_notification_read
-- Returns the row, also if it was marked before.
update lora_notifications set read = true where id = $1 returning *;

-- name: prune_notifications
-- Deletes up to $3 notifications that are older than $1, and as many that are superseded and older than $2. Each half uses an
-- index of its own.
delete from lora_notifications
where id = any(array(
    (select id from lora_notifications where created_at < now() - $1::interval limit $3)
    union
    (select id from lora_notifications where superseded and created_at < now() - $2::interval order by created_at limit $3)
));
