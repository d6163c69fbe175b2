-- The browser's tables, made once from a snapshot's parts. `image` numbers images in the order of shards and keys.

CREATE TABLE images AS
SELECT
    row_number() OVER (ORDER BY i.shard, i.key) AS image,
    i.shard::VARCHAR AS shard, i.key, i.image_id, i."offset", i.size, i.source, i.url, i.width, i.height,
    i.original_width, i.original_height, i.format::VARCHAR AS format, i.alt_text, i.status::VARCHAR AS status, i.error,
    b.mean_similarity, b.distinct_2
FROM images_parts i
LEFT JOIN bundles_parts b ON b.shard::VARCHAR = i.shard::VARCHAR AND b.key = i.key;

CREATE TABLE captions AS
SELECT
    i.image, c.caption_id, c.perspective::VARCHAR AS perspective, c.granularity::VARCHAR AS granularity,
    c.level::VARCHAR AS level, c.prompt_id::VARCHAR AS prompt_id, c.paraphrase, c.model::VARCHAR AS model,
    c.engine::VARCHAR AS engine, c.sampling::VARCHAR AS sampling, c.sample_index,
    c.text, v.clean_text, coalesce(v.clean_text, c.text) AS shown,
    len(regexp_split_to_array(trim(coalesce(v.clean_text, c.text)), '\s+')) AS words,
    c.prompt_tokens, c.cached_tokens, c.output_tokens, c.finish_reason::VARCHAR AS finish_reason,
    c.status::VARCHAR AS status, c.error,
    CASE WHEN v.keep IS NULL THEN 'open' WHEN v.keep THEN 'kept' ELSE 'dropped' END AS verdict,
    v.gadget::VARCHAR AS gadget, v.reason::VARCHAR AS reason, v.scores
FROM (  -- no failure where there is an answer, and of what was asked twice the newer row
    SELECT p.*, bool_or(p.status::VARCHAR = 'ok') OVER (PARTITION BY p.image_id, p.cell) AS answered
    FROM captions_parts p
    JOIN cells ON cells.cell = p.cell::VARCHAR
    QUALIFY row_number() OVER (
        PARTITION BY p.image_id, p.cell, CASE WHEN p.status::VARCHAR = 'ok' THEN p.caption_id END
        ORDER BY p.created_at DESC NULLS LAST
    ) = 1
) c
JOIN images i ON i.image_id = c.image_id
LEFT JOIN verdicts_parts v ON v.caption_id = c.caption_id AND v.shard::VARCHAR = i.shard AND v.key = i.key
WHERE c.status::VARCHAR = 'ok' OR NOT c.answered
ORDER BY i.image, c.perspective::VARCHAR, c.granularity::VARCHAR, c.model::VARCHAR, c.caption_id;
