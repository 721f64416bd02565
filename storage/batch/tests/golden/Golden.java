// Writes the golden files beside it, with Apache Kafka's own classes, and reads ours with them.
//
//   java -cp 'libs/*' Golden.java write <dir>    # libs: those of Kafka 4.3.1's binary release, or kafka-clients,
//   java -cp 'libs/*' Golden.java read <file>... # kafka-storage and their dependencies from Maven Central.
//
// `data` below is what tests/golden.rs expects to find in each data batch.

import java.io.File;
import java.lang.reflect.Method;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.TreeMap;

import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.storage.internals.log.ProducerStateEntry;
import org.apache.kafka.storage.internals.log.ProducerStateManager;

public class Golden {
    public static void main(String[] args) throws Exception {
        if (args[0].equals("write")) write(Path.of(args[1]));
        else for (int i = 1; i < args.length; i++) read(Path.of(args[i]));
    }

    static void write(Path dir) throws Exception {
        save(dir, "none", MemoryRecords.withRecords(Compression.NONE, data(300)));
        save(dir, "gzip", MemoryRecords.withRecords(Compression.gzip().build(), data(100_000)));
        save(dir, "snappy", MemoryRecords.withRecords(Compression.snappy().build(), data(100_000)));
        save(dir, "lz4", MemoryRecords.withRecords(Compression.lz4().build(), data(100_000)));
        save(dir, "zstd", MemoryRecords.withRecords(Compression.zstd().build(), data(100_000)));
        save(dir, "transactional", MemoryRecords.withTransactionalRecords((byte) 2, 42, Compression.NONE, 77, (short) 3,
            Integer.MAX_VALUE - 1, 5, few()));
        save(dir, "commit", MemoryRecords.withEndTransactionMarker(45, 3000, 5, 77, (short) 3,
            new EndTransactionMarker(ControlRecordType.COMMIT, 9)));
        MemoryRecordsBuilder appendTime = MemoryRecords.builder(ByteBuffer.allocate(1000), (byte) 2, Compression.NONE,
            TimestampType.LOG_APPEND_TIME, 7, 123_456_789, 4);
        for (SimpleRecord record : few()) appendTime.append(record);
        save(dir, "append-time", appendTime.build());
        save(dir, "v1", MemoryRecords.withRecords((byte) 1, Compression.NONE, few()));

        Map<Long, ProducerStateEntry> producers = new TreeMap<>();
        ProducerStateEntry open = new ProducerStateEntry(77, (short) 3, 9, 2000, OptionalLong.of(42));
        addBatch(open, (short) 3, 0, 44, 2, 2000);
        ProducerStateEntry plain = new ProducerStateEntry(78, (short) 0, -1, 5000, OptionalLong.empty());
        addBatch(plain, (short) 0, 9, 30, 9, 5000);
        producers.put(77L, open);
        producers.put(78L, plain);
        producers.put(79L, new ProducerStateEntry(79, (short) 1, 2, 4000, OptionalLong.empty()));
        ProducerStateManager.writeSnapshot(new File(dir.toFile(), "producers.snapshot"), producers, false);
    }

    static void addBatch(ProducerStateEntry entry, short epoch, int lastSequence, long lastOffset, int delta, long time) throws Exception {
        Method method = ProducerStateEntry.class.getDeclaredMethod("addBatch", short.class, int.class, long.class, int.class, long.class);
        method.setAccessible(true); // Package private since 4.3.
        method.invoke(entry, epoch, lastSequence, lastOffset, delta, time);
    }

    static SimpleRecord[] data(int longValue) {
        List<SimpleRecord> records = new ArrayList<>();
        records.add(new SimpleRecord(1000, bytes("k0"), bytes("v0"), new Header[] {
            new RecordHeader("h1", bytes("x")), new RecordHeader("h2", null), new RecordHeader("ü", bytes("")) }));
        records.add(new SimpleRecord(999, (byte[]) null, null));
        records.add(new SimpleRecord(2000, bytes(""), bytes("flowstone".repeat(longValue / 9 + 1).substring(0, longValue))));
        for (int i = 3; i < 133; i++)
            records.add(new SimpleRecord(1000 + i, bytes("n" + i), bytes("")));
        return records.toArray(new SimpleRecord[0]);
    }

    static SimpleRecord[] few() {
        return new SimpleRecord[] { new SimpleRecord(1000, bytes("a"), bytes("1")), new SimpleRecord(2000, bytes("b"), bytes("2")),
            new SimpleRecord(1500, bytes("c"), bytes("3")) };
    }

    static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    static void save(Path dir, String name, MemoryRecords records) throws Exception {
        byte[] bytes = new byte[records.sizeInBytes()];
        records.buffer().get(bytes);
        Files.write(dir.resolve(name + ".bin"), bytes);
    }

    static void read(Path file) throws Exception {
        if (file.toString().endsWith(".snapshot")) {
            ProducerStateManager.readSnapshot(file.toFile()).forEach(System.out::println);
            return;
        }
        for (RecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file))).batches()) {
            batch.ensureValid();
            System.out.println(file.getFileName() + " " + batch);
            long sum = 0;
            int count = 0;
            for (var record : batch) {
                sum += record.timestamp() + Math.max(0, record.keySize()) + Math.max(0, record.valueSize()) + record.headers().length;
                count++;
            }
            System.out.println("  " + count + " records, checksum " + sum);
        }
    }
}
