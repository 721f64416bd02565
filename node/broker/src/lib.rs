//! The daemon flowstoned: config, connections, one handler a Kafka API, controller, metrics.
