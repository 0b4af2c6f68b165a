// Starts one OpenSearch node: node.groovy FOLDER [PLUGIN…], with config/ in the folder and plugins by their classes.
// OpenSearch's own start loads its HTTP server from a folder of its distribution, which is in no repository; here the HTTP
// server is on the class path, as in OpenSearch's own tests.
import java.nio.file.Path
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import org.opensearch.common.logging.LogConfigurator
import org.opensearch.common.settings.Settings
import org.opensearch.node.InternalSettingsPreparer
import org.opensearch.node.Node
import org.opensearch.transport.Netty4Plugin

class LocalNode extends Node {
  LocalNode(environment, plugins) {
    super(environment, [Netty4Plugin, *plugins], false)
  }
}

def home = Settings.builder().put('path.home', args[0]).build()
def environment = InternalSettingsPreparer.prepareEnvironment(home, [:], Path.of(args[0], 'config'), { 'local' })
LogConfigurator.configure(environment)
def node = new LocalNode(environment, args.drop(1).collect { Class.forName(it) })
Runtime.runtime.addShutdownHook(new Thread({
  node.close()
  node.awaitClose(30, TimeUnit.SECONDS)
}))
node.start()
new CountDownLatch(1).await() // its own threads do not keep the process alive
