# A task with a host volume of the node, once to write to and once to read only.

job "volume" {
  type = "batch"

  group "volume" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    volume "data" {
      type   = "host"
      source = "data"
    }

    volume "fixed" {
      type      = "host"
      source    = "data"
      read_only = true
    }

    task "main" {
      driver = "promptflow"

      volume_mount {
        volume      = "data"
        destination = "/data"
      }

      volume_mount {
        volume      = "fixed"
        destination = "/fixed"
      }

      config {
        environment = "busybox"
        command     = "/bin/sh"
        args        = ["-c", "cp /fixed/in /data/out && ! touch /fixed/forbidden"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
