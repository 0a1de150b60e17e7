import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.math.BigDecimal;
import java.math.BigInteger;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.UUID;

/** Hashes keys, one a line, as org.apache.amoro.data.PrimaryKeyData does: values are "type:text", separated by blanks. */
final class KeyHash {
  public static void main(String[] args) throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      int hash = Math.abs(Arrays.hashCode(Arrays.stream(line.split(" ")).map(KeyHash::value).toArray()));
      System.out.println(hash < 0 ? Integer.MAX_VALUE : hash);
    }
  }

  private static Object value(String word) {
    String[] part = word.split(":", -1);
    switch (part[0]) {
      case "null": return null;
      case "boolean": return part[1].equals("1");
      case "int": return Integer.valueOf(part[1]);
      case "long": return Long.valueOf(part[1]);
      case "float": return Float.intBitsToFloat((int) Long.parseLong(part[1]));
      case "double": return Double.longBitsToDouble(Long.parseLong(part[1]));
      case "decimal": return new BigDecimal(new BigInteger(part[1]), Integer.parseInt(part[2]));
      case "string": return new String(HexFormat.of().parseHex(part[1]), StandardCharsets.UTF_8);
      case "binary": return ByteBuffer.wrap(HexFormat.of().parseHex(part[1]));
      case "uuid":
        ByteBuffer b = ByteBuffer.wrap(HexFormat.of().parseHex(part[1]));
        return new UUID(b.getLong(), b.getLong());
      default: throw new IllegalArgumentException(word);
    }
  }
}
