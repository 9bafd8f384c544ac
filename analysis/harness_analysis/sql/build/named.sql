-- Groups that an evidence knows only by NCCL's own id (`nccl:0x...`, as a recording that began after
-- the communicators were made): by their members, where NCCL's log says who they are. The id is
-- the same on all ranks and in every tool of NCCL's; two of one id are not believed.
CREATE TEMP TABLE named_groups AS
  SELECT 'nccl:' || comm_id AS by_id, any_value(attrs ->> 'group') AS comm_group,
    any_value(nranks) AS nranks
  FROM run.nccl_comms WHERE comm_id IS NOT NULL AND nranks IS NOT NULL
  GROUP BY comm_id
  HAVING count(DISTINCT attrs ->> 'group') = 1 AND count(DISTINCT nranks) = 1
    AND any_value(attrs ->> 'group') LIKE '[%';

UPDATE collective_parts SET comm_group = n.comm_group, group_size = coalesce(group_size, n.nranks)
  FROM named_groups n WHERE collective_parts.comm_group = n.by_id;

DROP TABLE named_groups;
