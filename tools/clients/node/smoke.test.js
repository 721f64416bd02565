// kafkajs: the code base most Node services have. One scenario a test; BOOTSTRAP and NAME come from test_node.py.
'use strict';

const assert = require('node:assert');
const { test } = require('node:test');
const { Kafka, CompressionTypes, logLevel } = require('kafkajs');

const topic = process.env.NAME;
const kafka = new Kafka({ clientId: 'kafkajs-test', brokers: [process.env.BOOTSTRAP], logLevel: logLevel.NOTHING });

async function withAdmin(use) {
  const admin = kafka.admin();
  await admin.connect();
  try {
    return await use(admin);
  } finally {
    await admin.disconnect();
  }
}

async function produce(messages, options = {}, producerOptions = {}) {
  const producer = kafka.producer(producerOptions);
  await producer.connect();
  const sent = await producer.send({ topic, messages, ...options });
  await producer.disconnect();
  return sent;
}

async function consume(count, groupId) {
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 200 });
  const got = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`${got.length} of ${count} messages`)), 30000).unref();
    consumer.run({
      eachMessage: async ({ partition, message }) => {
        got.push({ partition, offset: message.offset, key: String(message.key), value: String(message.value), headers: message.headers });
        if (got.length === count) resolve();
      },
    }).catch(reject);
  });
  await consumer.disconnect();
  return got;
}

test('round-trip', async () => {
  await withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true }));
  const messages = Array.from({ length: 200 }, (_, n) => ({ key: `k${n}`, value: `value ${n}`, headers: { n: String(n) } }));
  const [sent] = await produce(messages, { acks: -1 });
  assert.deepStrictEqual([sent.errorCode, sent.baseOffset], [0, '0']);
  const got = await consume(200, `${topic}-group`);
  assert.deepStrictEqual(got.map((m) => [m.offset, m.key, m.value, String(m.headers.n)]), messages.map((m, n) => [String(n), m.key, m.value, String(n)]));
});

test('gzip-and-idempotent', async () => {
  await withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true }));
  const messages = Array.from({ length: 300 }, (_, n) => ({ value: `value ${n}`, partition: n % 3 }));
  await produce(messages, { compression: CompressionTypes.GZIP }, { idempotent: true, maxInFlightRequests: 1 });
  const got = await consume(300, `${topic}-group`);
  for (const partition of [0, 1, 2]) {
    const values = got.filter((m) => m.partition === partition).map((m) => m.value);
    assert.deepStrictEqual(values, messages.filter((m) => m.partition === partition).map((m) => m.value));
  }
});

test('group-goes-on', async () => {
  await withAdmin((admin) => admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true }));
  await produce([{ value: 'first' }]);
  assert.deepStrictEqual((await consume(1, `${topic}-group`)).map((m) => m.value), ['first']);
  await produce([{ value: 'second' }]);
  assert.deepStrictEqual((await consume(1, `${topic}-group`)).map((m) => m.value), ['second']);
});

test('admin', async () => {
  await withAdmin(async (admin) => {
    assert.strictEqual(await admin.createTopics({ topics: [{ topic, numPartitions: 2, configEntries: [{ name: 'retention.ms', value: '60000' }] }], waitForLeaders: true }), true);
    await admin.createPartitions({ topicPartitions: [{ topic, count: 4 }] });
    await produce([{ value: 'x', partition: 0 }, { value: 'y', partition: 0 }]);
    const { topics: [found] } = await admin.fetchTopicMetadata({ topics: [topic] });
    assert.strictEqual(found.partitions.length, 4);
    const { resources: [config] } = await admin.describeConfigs({ resources: [{ type: 2, name: topic, configNames: ['retention.ms'] }], includeSynonyms: false });
    assert.strictEqual(config.configEntries[0].configValue, '60000');
    const offsets = await admin.fetchTopicOffsets(topic);
    assert.strictEqual(offsets.find((o) => o.partition === 0).high, '2');
    await admin.setOffsets({ groupId: `${topic}-group`, topic, partitions: [{ partition: 0, offset: '1' }] });
    const [committed] = await admin.fetchOffsets({ groupId: `${topic}-group`, topics: [topic] });
    assert.strictEqual(committed.partitions.find((p) => p.partition === 0).offset, '1');
    assert.ok((await admin.listGroups()).groups.some((g) => g.groupId === `${topic}-group`));
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] });
    assert.strictEqual((await admin.fetchTopicOffsets(topic)).find((o) => o.partition === 0).low, '1');
    await admin.deleteGroups([`${topic}-group`]);
    await admin.deleteTopics({ topics: [topic] });
    assert.ok(!(await admin.listTopics()).includes(topic));
  });
});
