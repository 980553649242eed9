import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/**
 * A bot for the text door: quotes the fund XLF around the value of its basket.
 *
 * <p>Ten XLF are three BOND, two GS, three MS and two WFC. When the bot holds
 * many XLF it converts them and trades the parts away; the fee is 100 for any
 * number. It needs Java 17 only:
 *
 * <pre>java BasketBot.java [HOST [PORT [TEAM]]]</pre>
 *
 * HOST, PORT and TEAM are by default $EXCHANGE_HOST, $EXCHANGE_LINE_PORT and
 * $EXCHANGE_USER, or else localhost, 20000 and BASKETS. It runs until Ctrl-C,
 * and connects again when a round is over.
 */
public class BasketBot {
    static final Map<String, Integer> BASKET = Map.of("BOND", 3, "GS", 2, "MS", 3, "WFC", 2);
    static final int EDGE = 6; // ticks between the value and each quote
    static final int QTY = 5; // lots of a quote
    static final int ENOUGH = 20; // lots of XLF that it converts
    static final int AGAIN_MS = 500; // between two attempts to connect

    final OutputStream out;
    final Map<String, Integer> bids = new HashMap<>();
    final Map<String, Integer> asks = new HashMap<>();
    final Map<String, Integer> positions = new HashMap<>();
    final Map<String, Integer> workIds = new HashMap<>(); // of orders in parts
    final Map<String, Integer> workPrices = new HashMap<>();
    final Map<String, Integer> quoteIds = new HashMap<>(); // by side
    final Map<String, Integer> quotePrices = new HashMap<>();
    int lastId = 0;
    int converting = 0; // the id of a conversion, 0: none
    int converted = 0; // XLF that it brings
    boolean isOpen = false;

    BasketBot(OutputStream out) {
        this.out = out;
    }

    void say(Object... words) throws IOException {
        StringBuilder line = new StringBuilder();
        for (Object word : words) {
            line.append(line.length() > 0 ? " " : "").append(word);
        }
        out.write((line + "\n").getBytes(StandardCharsets.US_ASCII));
        out.flush();
    }

    int add(String symbol, String side, int price, int qty) throws IOException {
        say("ADD", ++lastId, symbol, side, price, qty);
        return lastId;
    }

    int held(String symbol) {
        return positions.getOrDefault(symbol, 0);
    }

    /** The value of one XLF by the middles of its parts; below 0: unknown. */
    double value() {
        double sum = 0;
        for (Map.Entry<String, Integer> part : BASKET.entrySet()) {
            Integer bid = bids.get(part.getKey()), ask = asks.get(part.getKey());
            if (bid == null || ask == null) {
                return -1;
            }
            sum += part.getValue() * (bid + ask) / 2.0;
        }
        return sum / 10;
    }

    void trade() throws IOException {
        double value = value();
        if (!isOpen || converting != 0 || value < 0) {
            return;
        }
        int held = held("XLF");
        quote("BUY", (int) Math.round(value) - EDGE, held);
        quote("SELL", (int) Math.round(value) + EDGE, -held);
        int lots = Math.abs(held) / 10 * 10;
        if (lots >= ENOUGH) {
            converting = ++lastId;
            converted = held > 0 ? -lots : lots;
            say("CONVERT", converting, "XLF", held > 0 ? "SELL" : "BUY", lots);
            return;
        }
        for (String part : BASKET.keySet()) {
            if (held(part) != 0) {
                sellOff(part, held(part));
            }
        }
    }

    /** Trade the lots of a part at the best price. */
    void sellOff(String part, int lots) throws IOException {
        int price = lots > 0 ? bids.get(part) : asks.get(part);
        if (!workIds.containsKey(part)) {
            workIds.put(part, add(part, lots > 0 ? "SELL" : "BUY", price, Math.abs(lots)));
        } else if (workPrices.get(part) != price) { // it was too late, and waits
            say("CANCEL", workIds.get(part));
        }
        workPrices.put(part, price);
    }

    /** Show QTY lots of XLF at a price, unless it holds enough. */
    void quote(String side, int price, int held) throws IOException {
        int old = quotePrices.getOrDefault(side, 0);
        int wanted = held >= ENOUGH ? 0 : price;
        if (wanted == old) {
            return;
        }
        if (old != 0) {
            say("CANCEL", quoteIds.get(side));
        }
        quotePrices.put(side, wanted);
        if (wanted > 0) {
            quoteIds.put(side, add("XLF", side, wanted, QTY));
        }
    }

    void gone(int id) {
        workIds.values().remove(id);
        for (String side : new String[] {"BUY", "SELL"}) {
            if (quoteIds.getOrDefault(side, 0) == id) {
                quotePrices.put(side, 0);
                quoteIds.remove(side);
            }
        }
    }

    void hear(String line) throws IOException {
        String[] words = line.split(" ");
        switch (words[0]) {
            case "HELLO" -> {
                for (int i = 1; i < words.length; i++) {
                    String[] pair = words[i].split(":");
                    positions.put(pair[0], Integer.parseInt(pair[1]));
                }
            }
            case "OPEN" -> isOpen = true;
            case "CLOSE" -> isOpen = false;
            case "BOOK" -> {
                boolean isBuy = true;
                bids.remove(words[1]);
                asks.remove(words[1]);
                for (int i = 2; i < words.length; i++) {
                    if (words[i].equals("SELL")) {
                        isBuy = false;
                    } else if (!words[i].equals("BUY")) {
                        int price = Integer.parseInt(words[i].split(":")[0]);
                        (isBuy ? bids : asks).putIfAbsent(words[1], price);
                    }
                }
            }
            case "ACK" -> {
                if (Integer.parseInt(words[1]) == converting) {
                    converting = 0;
                    positions.merge("XLF", converted, Integer::sum);
                    for (Map.Entry<String, Integer> part : BASKET.entrySet()) {
                        positions.merge(part.getKey(), -converted / 10 * part.getValue(), Integer::sum);
                    }
                    System.out.println("converted " + Math.abs(converted));
                }
            }
            case "FILL" -> {
                int qty = Integer.parseInt(words[5]);
                positions.merge(words[2], words[3].equals("BUY") ? qty : -qty, Integer::sum);
                System.out.println(words[3] + " " + qty + " " + words[2] + " at " + words[4]);
            }
            case "OUT" -> gone(Integer.parseInt(words[1]));
            case "REJECT" -> {
                System.out.println("rejected: " + words[2]);
                int id = Integer.parseInt(words[1]);
                converting = id == converting ? 0 : converting;
                gone(id);
            }
            case "ERROR" -> {
                if (!line.equals("ERROR IDLE")) {
                    System.out.println(line);
                }
            }
            default -> { }
        }
        trade();
    }

    static void play(String host, int port, String team) throws IOException {
        try (Socket socket = new Socket(host, port)) {
            BufferedReader in = new BufferedReader(
                new InputStreamReader(socket.getInputStream(), StandardCharsets.US_ASCII));
            BasketBot bot = new BasketBot(socket.getOutputStream());
            bot.say("HELLO", team);
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                bot.hear(line);
            }
        }
        System.out.println("the exchange hung up");
    }

    static String setting(String[] args, int place, String name, String otherwise) {
        String given = args.length > place ? args[place] : System.getenv(name);
        return given == null || given.isEmpty() ? otherwise : given;
    }

    public static void main(String[] args) throws InterruptedException {
        String host = setting(args, 0, "EXCHANGE_HOST", "localhost");
        int port = Integer.parseInt(setting(args, 1, "EXCHANGE_LINE_PORT", "20000"));
        String team = setting(args, 2, "EXCHANGE_USER", "BASKETS");
        while (true) {
            try {
                play(host, port, team);
            } catch (IOException error) {
                System.out.println(error.getMessage());
            }
            Thread.sleep(AGAIN_MS);
        }
    }
}
