import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.*;
import java.net.*;
import java.nio.charset.StandardCharsets;
import java.nio.file.*;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's command-line tools, unchanged, one after another or side by side in one JVM: a JVM start costs seconds and a test run has a hundred of them.
 *
 * Listens on the loopback address, prints its port, and answers one JSON line with one JSON line:
 * {"op":"start","id":"1","main":"org.apache...TopicCommand","args":["--list"],"stdin":"..."} -> {}
 * {"op":"peek","id":"1"} -> {"done":false,"exit":0,"out":"...","err":"..."}
 * {"op":"wait","id":"1","ms":5000} -> as peek, after the end or after that time
 * {"op":"stop","id":"1"} -> {}, having run the tool's shutdown hooks, as SIGTERM would
 *
 * Every tool gets its own stdin, stdout, stderr, exit and shutdown hooks by inheritable thread-locals, and its own copy of the classes in the tools jar,
 * since some of them count in static fields. It ends with its standard input, so it never outlives the test run.
 */
public final class ToolServer {
    static final ObjectMapper JSON = new ObjectMapper();
    static final InheritableThreadLocal<Run> CURRENT = new InheritableThreadLocal<>();
    static final Map<String, Run> RUNS = new ConcurrentHashMap<>();
    static final PrintStream REAL_OUT = System.out;

    static final class Run {
        final ByteArrayOutputStream out = new ByteArrayOutputStream(), err = new ByteArrayOutputStream();
        final InputStream in;
        final List<Runnable> hooks = new CopyOnWriteArrayList<>();
        final CountDownLatch done = new CountDownLatch(1);
        volatile Integer exit;

        Run(String stdin) { in = new ByteArrayInputStream(stdin.getBytes(StandardCharsets.UTF_8)); }
    }

    static final class Exited extends RuntimeException {
        Exited() { super("the tool exits", null, false, false); }
    }

    /** The tools jar again in every loader, everything else (clients, codecs, logging) once. */
    static final class ToolsAgain extends URLClassLoader {
        ToolsAgain(URL[] urls) { super(urls, ToolServer.class.getClassLoader()); }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            if (name.startsWith("org.apache.kafka.tools.") && !name.startsWith("org.apache.kafka.tools.api.")) {
                synchronized (getClassLoadingLock(name)) {
                    Class<?> loaded = findLoadedClass(name);
                    return loaded != null ? loaded : findClass(name);
                }
            }
            return super.loadClass(name, resolve);
        }
    }

    static OutputStream routed(boolean toOut) {
        return new OutputStream() {
            private OutputStream target() {
                Run run = CURRENT.get();
                return run == null ? REAL_OUT : toOut ? run.out : run.err;
            }
            @Override public void write(int b) throws IOException { target().write(b); }
            @Override public void write(byte[] b, int off, int len) throws IOException { target().write(b, off, len); }
        };
    }

    /** The metadata shell closes System.out when it is done; the next tool still needs it. */
    static PrintStream unclosable(OutputStream to) {
        return new PrintStream(to, true, StandardCharsets.UTF_8) {
            @Override public void close() { flush(); }
        };
    }

    static void run(Run run, String main, String[] args, URL[] tools) {
        CURRENT.set(run);
        ClassLoader loader = new ToolsAgain(tools);
        Thread.currentThread().setContextClassLoader(loader);
        int exit = 0;
        try {
            loader.loadClass(main).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException e) {
            if (!(e.getCause() instanceof Exited)) {
                e.getCause().printStackTrace(System.err);
                exit = 1;
            }
        } catch (ReflectiveOperationException e) {
            e.printStackTrace(System.err);
            exit = 127;
        }
        for (Runnable hook : run.hooks) {
            try { hook.run(); } catch (RuntimeException e) { e.printStackTrace(System.err); }
        }
        if (run.exit == null) run.exit = exit;
        System.out.flush();
        System.err.flush();
        run.done.countDown();
    }

    static ObjectNode answer(JsonNode ask, URL[] tools) throws InterruptedException {
        ObjectNode reply = JSON.createObjectNode();
        String id = ask.get("id").asText();
        if (ask.get("op").asText().equals("start")) {
            Run run = new Run(ask.path("stdin").asText(""));
            RUNS.put(id, run);
            List<String> args = new ArrayList<>();
            ask.get("args").forEach(arg -> args.add(arg.asText()));
            new Thread(() -> run(run, ask.get("main").asText(), args.toArray(new String[0]), tools), "tool-" + id).start();
            return reply;
        }
        Run run = RUNS.get(id);
        switch (ask.get("op").asText()) {
            case "stop": {
                // A hook waits for the tool's end in some tools, and the tool's end waits for nobody: so each on a thread of its own.
                for (Runnable hook : run.hooks) {
                    new Thread(() -> {
                        CURRENT.set(run);
                        hook.run();
                    }).start();
                }
                return reply;
            }
            case "wait":
                run.done.await(ask.get("ms").asLong(), TimeUnit.MILLISECONDS);
                break;
            default:
                break;
        }
        boolean done = run.done.getCount() == 0;
        reply.put("done", done);
        reply.put("exit", run.exit == null ? 0 : run.exit);
        reply.put("out", run.out.toString(StandardCharsets.UTF_8));
        reply.put("err", run.err.toString(StandardCharsets.UTF_8));
        return reply;
    }

    public static void main(String[] argv) throws Exception {
        List<URL> jars = new ArrayList<>();
        for (String entry : System.getProperty("java.class.path").split(File.pathSeparator)) {
            if (Path.of(entry).getFileName().toString().matches("kafka-tools-[0-9].*")) jars.add(Path.of(entry).toUri().toURL());
        }
        URL[] tools = jars.toArray(new URL[0]);
        if (tools.length != 1) throw new IllegalStateException("one kafka-tools jar expected on the class path, found " + jars);

        System.setOut(unclosable(routed(true)));
        System.setErr(unclosable(routed(false)));
        System.setIn(new InputStream() {
            private InputStream source() { return CURRENT.get() == null ? InputStream.nullInputStream() : CURRENT.get().in; }
            @Override public int read() throws IOException { return source().read(); }
            @Override public int read(byte[] b, int off, int len) throws IOException { return source().read(b, off, len); }
            @Override public int available() throws IOException { return source().available(); }
        });
        Exit.Procedure exit = (code, message) -> {
            Run run = CURRENT.get();
            if (run != null && run.exit == null) run.exit = code;
            if (message != null) System.err.println(message);
            throw new Exited();
        };
        Exit.setExitProcedure(exit);
        Exit.setHaltProcedure(exit);
        Exit.setShutdownHookAdder((name, hook) -> {
            Run run = CURRENT.get();
            if (run != null) run.hooks.add(hook);
        });

        InputStream parent = new FileInputStream(FileDescriptor.in);
        Thread watch = new Thread(() -> {
            try { while (parent.read() >= 0) { } } catch (IOException e) { /* the parent is gone, too */ }
            Runtime.getRuntime().halt(0);
        });
        watch.setDaemon(true);
        watch.start();

        ServerSocket server = new ServerSocket(0, 16, InetAddress.getLoopbackAddress());
        REAL_OUT.println("port " + server.getLocalPort());
        REAL_OUT.flush();
        while (true) {
            Socket peer = server.accept();
            new Thread(() -> {
                try (peer; BufferedReader lines = new BufferedReader(new InputStreamReader(peer.getInputStream(), StandardCharsets.UTF_8))) {
                    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                        byte[] reply = (JSON.writeValueAsString(answer(JSON.readTree(line), tools)) + "\n").getBytes(StandardCharsets.UTF_8);
                        peer.getOutputStream().write(reply);
                    }
                } catch (IOException | InterruptedException e) {
                    e.printStackTrace(REAL_OUT);
                }
            }).start();
        }
    }
}
