//! Kafka's message and record encodings, declared once: the schema macro and its bounded decoder.
