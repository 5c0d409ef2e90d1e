module jimu.example/hello

go 1.19
