// Two Go clients against the broker, a scenario a test. BOOTSTRAP and NAME come from test_go.py.
package clients

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/IBM/sarama"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

var bootstrap, name = os.Getenv("BOOTSTRAP"), os.Getenv("NAME")

const records = 500

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, options ...kgo.Opt) *kgo.Client {
	made, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap)}, options...)...)
	must(t, err)
	t.Cleanup(made.Close)
	return made
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// franz-go: idempotent by default, flexible versions, fetch sessions, the cooperative-sticky balancer.
func TestFranzRoundTrip(t *testing.T) {
	ctx := limited(t)
	for index, codec := range []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()} {
		topic := fmt.Sprintf("%s-%d", name, index)
		admin := kadm.NewClient(client(t))
		_, err := admin.CreateTopic(ctx, 3, 1, nil, topic)
		must(t, err)
		producer := client(t, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec), kgo.RecordPartitioner(kgo.ManualPartitioner()))
		for n := 0; n < records; n++ {
			producer.Produce(ctx, &kgo.Record{Partition: int32(n % 3), Value: []byte(fmt.Sprint(n)), Headers: []kgo.RecordHeader{{Key: "n", Value: []byte{byte(n)}}}}, func(r *kgo.Record, err error) {
				if err != nil {
					t.Error(err)
				}
			})
		}
		must(t, producer.Flush(ctx))
		consumer := client(t, kgo.ConsumeTopics(topic), kgo.ConsumerGroup(topic+"-group"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		next := map[int32]int{0: 0, 1: 1, 2: 2}
		for seen := 0; seen < records; {
			fetches := consumer.PollFetches(ctx)
			must(t, fetches.Err())
			fetches.EachRecord(func(r *kgo.Record) {
				if string(r.Value) != fmt.Sprint(next[r.Partition]) || r.Offset != int64(next[r.Partition]/3) {
					t.Fatalf("partition %d offset %d: %s, wanted %d", r.Partition, r.Offset, r.Value, next[r.Partition])
				}
				next[r.Partition] += 3
				seen++
			})
		}
		must(t, consumer.CommitUncommittedOffsets(ctx))
		lag, err := admin.Lag(ctx, topic+"-group")
		must(t, err)
		if total := lag[topic+"-group"].Lag.Total(); total != 0 {
			t.Fatalf("lag %d", total)
		}
	}
}

func TestFranzAdmin(t *testing.T) {
	ctx := limited(t)
	admin := kadm.NewClient(client(t))
	value := "60000"
	_, err := admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &value}, name)
	must(t, err)
	created, err := admin.CreatePartitions(ctx, 2, name)
	must(t, err)
	must(t, created.Error())
	producer := client(t, kgo.DefaultProduceTopic(name), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for n := 0; n < 10; n++ {
		must(t, producer.ProduceSync(ctx, &kgo.Record{Value: []byte("x")}).FirstErr())
	}
	configs, err := admin.DescribeTopicConfigs(ctx, name)
	must(t, err)
	found := false
	for _, config := range configs[0].Configs {
		found = found || (config.Key == "retention.ms" && *config.Value == "60000")
	}
	if !found {
		t.Fatal("retention.ms is not 60000")
	}
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: name, Partition: 0, At: 4, LeaderEpoch: -1})
	_, err = admin.DeleteRecords(ctx, offsets)
	must(t, err)
	starts, err := admin.ListStartOffsets(ctx, name)
	must(t, err)
	ends, err := admin.ListEndOffsets(ctx, name)
	must(t, err)
	if starts[name][0].Offset != 4 || ends[name][0].Offset != 10 {
		t.Fatalf("from %d to %d, wanted 4 to 10", starts[name][0].Offset, ends[name][0].Offset)
	}
	must(t, admin.CommitAllOffsets(ctx, name+"-group", offsets))
	described, err := admin.DescribeGroups(ctx, name+"-group")
	must(t, err)
	if state := described[name+"-group"].State; state != "Empty" {
		t.Fatalf("group is %s", state)
	}
	_, err = admin.DeleteGroups(ctx, name+"-group")
	must(t, err)
	deleted, err := admin.DeleteTopics(ctx, name)
	must(t, err)
	must(t, deleted.Error())
}

type reader struct {
	mutex  sync.Mutex
	values map[int32][]string
	seen   int
	all    chan struct{}
}

func (*reader) Setup(sarama.ConsumerGroupSession) error   { return nil }
func (*reader) Cleanup(sarama.ConsumerGroupSession) error { return nil }
func (r *reader) ConsumeClaim(session sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for message := range claim.Messages() {
		r.mutex.Lock()
		r.values[message.Partition] = append(r.values[message.Partition], string(message.Value))
		if r.seen++; r.seen == records {
			close(r.all)
		}
		r.mutex.Unlock()
		session.MarkMessage(message, "")
	}
	return nil
}

// sarama pins a protocol version by its configuration: old, non-flexible encodings in the first two.
func TestSaramaRoundTrip(t *testing.T) {
	ctx := limited(t)
	for _, version := range []sarama.KafkaVersion{sarama.V0_11_0_0, sarama.V2_1_0_0, sarama.V3_6_0_0} {
		topic := fmt.Sprintf("%s-%s", name, version)
		config := sarama.NewConfig()
		config.Version = version
		config.Producer.RequiredAcks = sarama.WaitForAll
		config.Producer.Return.Successes = true
		config.Producer.Partitioner = sarama.NewManualPartitioner
		config.Producer.Compression = sarama.CompressionSnappy
		config.Consumer.Offsets.Initial = sarama.OffsetOldest
		admin, err := sarama.NewClusterAdmin([]string{bootstrap}, config)
		must(t, err)
		must(t, admin.CreateTopic(topic, &sarama.TopicDetail{NumPartitions: 2, ReplicationFactor: 1}, false))
		producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
		must(t, err)
		var messages []*sarama.ProducerMessage
		for n := 0; n < records; n++ {
			messages = append(messages, &sarama.ProducerMessage{Topic: topic, Partition: int32(n % 2), Value: sarama.StringEncoder(fmt.Sprint(n))})
		}
		must(t, producer.SendMessages(messages))
		must(t, producer.Close())
		group, err := sarama.NewConsumerGroup([]string{bootstrap}, topic+"-group", config)
		must(t, err)
		r := &reader{values: map[int32][]string{}, all: make(chan struct{})}
		reading, stop := context.WithCancel(ctx)
		go group.Consume(reading, []string{topic}, r)
		select {
		case <-r.all:
		case <-ctx.Done():
			t.Fatalf("%s: %d of %d", version, r.seen, records)
		}
		stop()
		must(t, group.Close())
		for partition, values := range r.values {
			for n, value := range values {
				if value != fmt.Sprint(n*2+int(partition)) {
					t.Fatalf("%s: partition %d, place %d: %s", version, partition, n, value)
				}
			}
		}
		committed, err := admin.ListConsumerGroupOffsets(topic+"-group", map[string][]int32{topic: {0, 1}})
		must(t, err)
		if at := committed.GetBlock(topic, 0).Offset; at != records/2 {
			t.Fatalf("%s: committed %d", version, at)
		}
		must(t, admin.DeleteTopic(topic))
		must(t, admin.Close())
	}
}

func TestSaramaIdempotent(t *testing.T) {
	config := sarama.NewConfig()
	config.Version = sarama.V2_8_0_0
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Return.Successes = true
	config.Producer.Compression = sarama.CompressionZSTD
	producer, err := sarama.NewSyncProducer([]string{bootstrap}, config)
	must(t, err)
	for n := 0; n < 100; n++ {
		_, offset, err := producer.SendMessage(&sarama.ProducerMessage{Topic: name, Partition: 0, Key: sarama.StringEncoder("k"), Value: sarama.StringEncoder(fmt.Sprint(n))})
		must(t, err)
		if offset != int64(n) {
			t.Fatalf("offset %d, wanted %d", offset, n)
		}
	}
	must(t, producer.Close())
}
