# A task that gets a file from a web server before it starts, unpacked, by its checksum.

variable "source" {
  type = string
}

variable "checksum" {
  type = string
}

job "artifact" {
  type = "batch"

  group "artifact" {
    restart {
      attempts = 0
      mode     = "fail"
    }

    reschedule {
      attempts  = 0
      unlimited = false
    }

    task "main" {
      driver = "promptflow"

      artifact {
        source      = var.source
        destination = "local/artifact"

        options {
          checksum = var.checksum
        }
      }

      config {
        environment = "busybox"
        command     = "/bin/cat"
        args        = ["/local/artifact/greeting"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
