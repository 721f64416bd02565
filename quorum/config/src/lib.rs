//! Every configuration key, declared once: Kafka's name, type, default, range, scope and documentation.
