-- name: list_notifications
-- As list_jobs, with the number that are unread whatever the filter.
select counted.total, counted.unread, page.*
from (
    select count(*) filter (where not (read and $1)) as total, count(*) filter (where not read) as unread
    from lora_notifications
) counted
left join lateral (
    select * from lora_notifications
    where not (read and $1)
    order by created_at desc, id desc
    limit $2 offset $3
) page on true
order by page.created_at desc, page.id desc;

-- name: mark_notification_read
-- Doing it again changes nothing and returns the row all the same.
update lora_notifications set read = true where id = $1 returning *;
