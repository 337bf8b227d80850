import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.ToIntFunction;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.StateRestoreListener;
import org.apache.kafka.streams.state.Stores;

/**
 * One workload with Kafka Streams, one stream thread: WORKLOAD BOOTSTRAP TOPIC OUT GROUP STATE_DIR RECORDS, as the
 * Python jobs (benchmarks/peers/lines.py), and the same lines of JSON.
 */
public final class StreamsJob {
    private static final int LEAST_AMOUNT = 50;
    private static final byte[] END = "end".getBytes();
    /** A zero, and the schema's id in four bytes. */
    private static final int AVRO_HEAD_BYTES = 5;

    private final String workload;
    private final String bootstrap;
    private final String topic;
    private final String out;
    private final String group;
    private final String stateDir;
    private final long records;
    private final boolean cached;
    private final boolean exactlyOnce;

    private final CountDownLatch over = new CountDownLatch(1);
    private final ObjectMapper json = new ObjectMapper();
    private final Map<Integer, GenericDatumReader<GenericRecord>> avroReaders = new HashMap<>();
    private BinaryDecoder avroDecoder;
    // Of the one stream thread, and read when it has ended.
    private long seen;
    private long kept;
    private long begun;
    private double[] waitsMs = new double[1024];
    private int waits;

    private StreamsJob(String[] arguments) {
        String[] words = arguments[0].split("/");
        workload = words[0];
        cached = !Arrays.asList(words).contains("uncached");
        exactlyOnce = Arrays.asList(words).contains("exactly-once");
        bootstrap = arguments[1];
        topic = arguments[2];
        out = arguments[3];
        group = arguments[4];
        stateDir = arguments[5];
        records = Long.parseLong(arguments[6]);
    }

    public static void main(String[] arguments) throws Exception {
        new StreamsJob(arguments).run();
        System.exit(0);
    }

    private void run() throws Exception {
        StreamsBuilder builder = new StreamsBuilder();
        KStream<Bytes, byte[]> source = builder.stream(topic, Consumed.with(Serdes.Bytes(), Serdes.ByteArray()));
        switch (workload) {
            case "noop" -> source.foreach((key, value) -> handled());
            case "json" -> filtered(source, this::jsonAmount);
            case "avro" -> filtered(source, this::avroAmount);
            case "map" -> source.peek((key, value) -> handled()).to(out, Produced.with(Serdes.Bytes(), Serdes.ByteArray()));
            case "count", "restore" -> count(source.peek((key, value) -> handled()));
            case "restart" -> count(source.peek((key, value) -> returned()));
            case "live" -> source.foreach((key, value) -> lived(value));
            default -> throw new IllegalArgumentException(workload);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings());
        Restores restores = new Restores();
        streams.setGlobalStateRestoreListener(restores);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> close(streams)));
        streams.start();
        over.await();
        close(streams);
        double seconds = (System.nanoTime() - begun) / 1e9;
        switch (workload) {
            case "restore" -> tell("\"records\": %d, \"seconds\": %f", restores.entries.get(), restores.seconds());
            case "live" -> tell("\"records\": %d, \"live\": %d, %s", seen, waits, percentiles());
            default -> tell("\"records\": %d, \"kept\": %d, \"seconds\": %f", seen, kept, seconds);
        }
    }

    private Properties settings() {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, group);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, stateDir);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        // As ours has it: 30 s would leave more of the work to the end.
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, exactlyOnce ? 100 : 5_000);
        if (exactlyOnce) {
            settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        }
        return settings;
    }

    private void count(KStream<Bytes, byte[]> source) {
        Materialized<Bytes, Long, org.apache.kafka.streams.state.KeyValueStore<Bytes, byte[]>> counts =
            Materialized.<Bytes, Long>as(Stores.persistentKeyValueStore("counts"))
                .withKeySerde(Serdes.Bytes())
                .withValueSerde(Serdes.Long());
        source
            .groupByKey(Grouped.with(Serdes.Bytes(), Serdes.ByteArray()))
            .count(cached ? counts.withCachingEnabled() : counts.withCachingDisabled());
    }

    private void handled() {
        if (seen++ == 0) {
            begun = System.nanoTime();
        }
        if (seen == records) {
            over.countDown();
        }
    }

    private void filtered(KStream<Bytes, byte[]> source, ToIntFunction<byte[]> amountOf) {
        source.filter((key, value) -> {
            handled();
            return amountOf.applyAsInt(value) >= LEAST_AMOUNT;
        }).foreach((key, value) -> kept++);
    }

    private int jsonAmount(byte[] value) {
        try {
            return ((Number) json.readValue(value, Map.class).get("amount")).intValue();
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** As Confluent's deserializer, which is not on Maven Central: a reader for each schema, by the id in the head. */
    private int avroAmount(byte[] value) {
        int schemaId = ByteBuffer.wrap(value).getInt(1);
        avroDecoder = DecoderFactory.get()
            .binaryDecoder(value, AVRO_HEAD_BYTES, value.length - AVRO_HEAD_BYTES, avroDecoder);
        try {
            GenericRecord record = avroReaders.computeIfAbsent(schemaId, this::avroReader).read(null, avroDecoder);
            return (Integer) record.get("amount");
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private GenericDatumReader<GenericRecord> avroReader(int schemaId) {
        try {
            URI address = URI.create(System.getenv("SCHEMA_REGISTRY_URL") + "/schemas/ids/" + schemaId);
            String schema = json.readTree(address.toURL()).get("schema").asText();
            return new GenericDatumReader<>(new Schema.Parser().parse(schema));
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private void returned() {
        if (++seen == 1) {
            tell("\"event\": \"first\"");
        }
        if (seen == records) {
            tell("\"event\": \"handled\"");
        }
    }

    private void lived(byte[] value) {
        if (seen < records) {
            if (seen++ == 0) {
                begun = System.nanoTime();
            }
            if (seen == records) {
                tell("\"event\": \"caught up\", \"seconds\": %f", (System.nanoTime() - begun) / 1e9);
            }
        } else if (Arrays.equals(value, END)) {
            over.countDown();
        } else {
            Instant now = Instant.now();
            long sent = Long.parseLong(new String(value, 0, 20));
            if (waits == waitsMs.length) {
                waitsMs = Arrays.copyOf(waitsMs, 2 * waits);
            }
            waitsMs[waits++] = (now.getEpochSecond() * 1_000_000_000L + now.getNano() - sent) / 1e6;
        }
    }

    private String percentiles() {
        double[] sorted = Arrays.copyOf(waitsMs, waits);
        Arrays.sort(sorted);
        return waits == 0
            ? "\"p50_ms\": null, \"p99_ms\": null"
            : String.format("\"p50_ms\": %f, \"p99_ms\": %f", sorted[waits / 2], sorted[(int) (waits * 0.99)]);
    }

    /** Leaves the group at once: by default the next start waits for the session of this one, 45 s. */
    private static void close(KafkaStreams streams) {
        streams.close(
            CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP)
                .withTimeout(Duration.ofSeconds(60)));
    }

    private static void tell(String facts, Object... values) {
        System.out.println("{" + String.format(java.util.Locale.ROOT, facts, values) + "}");
        System.out.flush();
    }

    /** From the beginning of the first restore to the end of the last. */
    private final class Restores implements StateRestoreListener {
        private final AtomicLong entries = new AtomicLong();
        private volatile long first;
        private volatile long last;

        @Override
        public synchronized void onRestoreStart(TopicPartition partition, String store, long start, long end) {
            if (first == 0) {
                first = System.nanoTime();
            }
        }

        @Override
        public void onBatchRestored(TopicPartition partition, String store, long end, long restored) { }

        @Override
        public synchronized void onRestoreEnd(TopicPartition partition, String store, long total) {
            last = System.nanoTime();
            if (entries.addAndGet(total) >= records && workload.equals("restore")) {
                over.countDown();
            }
        }

        private double seconds() {
            return (last - first) / 1e9;
        }
    }
}
