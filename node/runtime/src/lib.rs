//! Shards, tasks, timers, files, sockets and mailboxes on glommio and io_uring; and their simulated twin.
