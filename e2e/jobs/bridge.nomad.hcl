# Two tasks in a network of their own: a server, whose port is mapped to one of the node's, and a client that reaches it on the loopback
# that they share.

job "bridge" {
  type = "service"

  update {
    min_healthy_time  = "1s"
    healthy_deadline  = "45s"
    progress_deadline = "1m"
  }

  group "bridge" {
    network {
      mode = "bridge"

      port "http" {
        to = 8080
      }

      dns {
        servers = ["192.0.2.53"]
      }
    }

    service {
      name     = "bridge"
      port     = "http"
      provider = "nomad"

      check {
        name     = "answers"
        type     = "http"
        path     = "/"
        interval = "1s"
        timeout  = "1s"
      }
    }

    task "server" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "httpd"
        args        = ["-f", "-p", "8080", "-h", "/local"]
      }

      template {
        destination = "local/index.html"
        data        = "from within"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "neighbour" {
      driver       = "promptflow"
      kill_timeout = "1s"

      config {
        environment = "busybox"
        command     = "/bin/sleep"
        args        = ["infinity"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
