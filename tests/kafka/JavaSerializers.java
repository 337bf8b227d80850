import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HexFormat;
import java.util.Map;
import java.util.UUID;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;

/**
 * What Java's own serializers make of a value, and its deserializers of bytes.
 *
 * Each line of standard input is "write" or "read", a serializer, and a value as text or bytes in hexadecimal, with tabs
 * between them. The answer is the other one of the two. Text is UTF-8 in hexadecimal too, so that nothing about it can
 * be lost on the way; a double is the bits that it has.
 */
public class JavaSerializers {
    private static final Map<String, Serde<?>> SERDES = Map.of(
        "Integer", Serdes.Integer(),
        "Long", Serdes.Long(),
        "Double", Serdes.Double(),
        "UUID", Serdes.UUID(),
        "String", Serdes.String());

    public static void main(String[] arguments) throws Exception {
        var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] parts = line.split("\t", -1);
            System.out.println(parts[0].equals("write") ? written(parts[1], parts[2]) : read(parts[1], parts[2]));
        }
    }

    @SuppressWarnings("unchecked")
    private static String written(String name, String text) {
        var serializer = ((Serde<Object>) SERDES.get(name)).serializer();
        return HexFormat.of().formatHex(serializer.serialize("topic", parsed(name, text)));
    }

    private static String read(String name, String hex) {
        Object value = SERDES.get(name).deserializer().deserialize("topic", HexFormat.of().parseHex(hex));
        return switch (name) {
            case "Double" -> Long.toHexString(Double.doubleToRawLongBits((Double) value));
            case "String" -> HexFormat.of().formatHex(((String) value).getBytes(StandardCharsets.UTF_8));
            default -> value.toString();
        };
    }

    private static Object parsed(String name, String text) {
        return switch (name) {
            case "Integer" -> Integer.valueOf(text);
            case "Long" -> Long.valueOf(text);
            case "Double" -> Double.longBitsToDouble(Long.parseUnsignedLong(text, 16));
            case "UUID" -> UUID.fromString(text);
            default -> new String(HexFormat.of().parseHex(text), StandardCharsets.UTF_8);
        };
    }
}
